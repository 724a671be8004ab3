"""Simulations: the SDK's own algorithms against modelled servers, in virtual time."""
