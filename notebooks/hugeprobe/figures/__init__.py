"""The figures and sentences of the guide, one module a page, one function each.

They only arrange; what is arranged comes from the module that measured it.
"""
