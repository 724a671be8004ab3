"""Admitting calls and limiting them: by rate, by how many are under way, and by what the callee accepts."""
