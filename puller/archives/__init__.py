"""Images in one file: docker archives and OCI archives, as sources and as destinations of a copy.

members      the files inside an archive, found without unpacking it
contained    what images an archive holds, OCI or docker's way
source       an archive as a registry to read from
target       an archive as a registry to write to
names        short and full names
refusing     what no archive can do
"""
