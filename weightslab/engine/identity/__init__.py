"""What an experiment is: canonical descriptions and digests of model, config and data; no I/O.

`canonical`, `config`, `samples`, `architecture`. `architecture` needs torch when it is used; nothing
else imports torch or h5py by itself. Nothing is imported here: who lists a root needs `canonical` alone.
"""
