"""Private parts of other libraries, one file a library; tests/core/compat names what breaks when one moves."""
