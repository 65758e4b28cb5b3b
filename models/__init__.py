"""The parts of the method, arrays in and arrays out; each module is one of them."""
