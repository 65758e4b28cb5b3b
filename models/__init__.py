"""The parts of the method; each module is one of them."""
