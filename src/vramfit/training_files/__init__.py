"""Users' own files of training runs: settings and command lines of frameworks, read as fields of a request."""
