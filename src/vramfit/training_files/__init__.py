"""Users' own files of training runs: configurations and command lines of the frameworks, read as fields of a request."""
