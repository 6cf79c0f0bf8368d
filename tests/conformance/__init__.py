"""Every client against the same scenarios: clients/conformance has them, and who plays them."""
