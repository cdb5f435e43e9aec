//! Derive macros of lazuli.
