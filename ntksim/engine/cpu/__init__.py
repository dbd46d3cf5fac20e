"""Loops on the CPU."""
