//! Tables in the lake: Delta and Iceberg behind one interface (stage, audit, publish).
