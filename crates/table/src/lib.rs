//! Placeholder, replaced within the first slice.
