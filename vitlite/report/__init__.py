"""The report of a run, as one HTML page; a contact sheet of corrupted images."""
