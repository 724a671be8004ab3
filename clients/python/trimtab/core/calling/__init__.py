"""The call path: what happens to one call under the policy that holds for it. One pipeline serves every library."""
