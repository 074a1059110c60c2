"""Files to and from replicas, as tar archives through exec: what ``Client.copy_*`` does.

``tarstream`` reads an archive as it comes, ``unpacking`` makes its members here and never
anywhere else, ``packing`` turns local files into an archive, ``places`` says where things
go, ``copier`` talks to the program ``tar`` in the replica.
"""
