//! Sources of events: topic folders and Kafka behind one trait (ranges in, batches out).
