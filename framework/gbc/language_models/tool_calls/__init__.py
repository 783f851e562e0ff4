"""Calls of tools in what a model wrote."""
