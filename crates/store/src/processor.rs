//! What the processor must be able to do.
//!
//! On x86-64, RocksDB's CRC-32C is compiled to instructions of its own (see `.cargo/cxx`): it would end with an
//! illegal instruction on a processor that lacks them.

use crate::error::OpenError;

/// Refuses a processor for which RocksDB was not compiled.
pub(crate) fn check() -> Result<(), OpenError> {
    #[cfg(target_arch = "x86_64")]
    {
        for (name, is_there) in [
            ("sse4_2", std::arch::is_x86_feature_detected!("sse4.2")),
            ("pclmulqdq", std::arch::is_x86_feature_detected!("pclmulqdq")),
        ] {
            if !is_there {
                return Err(OpenError::Processor { lacks: name });
            }
        }
    }
    Ok(())
}
