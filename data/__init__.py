"""The challenge's files and folders, and the crops that the models see."""
