"""Training, evaluation, prediction: what turns a method and a folder of images into a run directory."""
