"""What a server that is a process of its own needs of the machine: sockets to listen on, descriptors, a certificate."""
