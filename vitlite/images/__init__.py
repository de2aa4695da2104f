"""Reading, resizing and drawing images, masks and anomaly maps; numpy, scipy and Pillow alone."""
