"""Domain objects to and from generated messages, both ways; the only such place.

Pure: nothing here waits, stores or decides. The specification is converted by field
name, so that a field which exists on one side only is an error and never ignored.
"""
