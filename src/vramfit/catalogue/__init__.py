"""Facts as data: models and devices that people name, each row with its sources and date."""
