"""Text encoders behind one contract: ids [R, L], mask [R, L] -> states [R, L, H]."""
