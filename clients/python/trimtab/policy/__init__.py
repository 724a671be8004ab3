"""Resilience policies as documents: the model, how it is read and written, and which part of it holds for a call.

Part of the contract between control plane and clients, like the stubs: both sides read policies with this package, which
is pure and needs nothing but the standard library (and PyYAML for YAML).

::

    words, quantities     what fields are made of          forms       what a field may hold, and its schema
    attempts, circuits, routing, limits, answers           sections    all of them; what one place of a document says
    tree → documents      text → places → model            reading     YAML or JSON → policy, or all its problems
    canonical             policy → JSON, YAML              schema      the JSON Schema
    effective             which section of which document holds for a call
"""
