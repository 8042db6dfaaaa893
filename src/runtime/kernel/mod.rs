//! Integer matrix products, one instruction set per file, chosen at run time.
