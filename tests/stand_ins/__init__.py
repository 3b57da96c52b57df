"""Stand-ins for files of weights that can't be had offline: tiny, in the real format, with the real inputs and outputs.

They are not trained; they are made so that they work on the two public-domain portraits that tests use: a detector that
correlates with these two faces, an encoder that knows their mean. So the real loading code runs in every test, on
pictures in which it finds something. What a stand-in says of anything else means nothing.
"""
