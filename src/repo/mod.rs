//! Reads the mesh from git: blobs of bare objects at a commit, or a plain folder. Never a checkout.
