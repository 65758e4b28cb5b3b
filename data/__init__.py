"""Lists, folders and images as arrays; the crops that the models see."""
