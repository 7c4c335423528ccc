"""What each training framework does, by version; each constant with its source."""
