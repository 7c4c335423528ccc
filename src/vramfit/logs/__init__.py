"""Start-up logs and out-of-memory messages of engines, read into the words of a request and measurements."""
