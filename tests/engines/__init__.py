"""Real servers for the tests of visitors' states, and a proxy in front of them."""
