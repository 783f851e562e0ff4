"""`python -m framework.bench.gpu`: everything that is to be known of one GPU, in minutes and in parts that may fail."""
