"""What alone can make the two proofs, each in a module of its own that only those may import who can answer for it.

An import contract holds this project to it. A sink or a ledger of another package imports the seal of the port it
implements.
"""
