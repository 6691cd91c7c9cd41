//! Queries that can be stopped.
//!
//! A query is stopped where it yields. DataFusion yields as it scans, and between operators that gather all of their input before
//! they say anything a join can make rows for hours out of one scanned batch. So whatever has more than one input, and whatever
//! makes many rows of one, yields as well.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Lets joins yield.
#[derive(Debug)]
pub(super) struct YieldInJoins;

impl PhysicalOptimizerRule for YieldInJoins {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let wrapped = plan.transform_up(|node| {
            let makes_rows =
                node.children().len() > 1 || matches!(node.name(), "UnnestExec" | "RecursiveQueryExec");
            Ok(if makes_rows {
                Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>)
            } else {
                Transformed::no(node)
            })
        })?;
        Ok(wrapped.data)
    }

    fn name(&self) -> &'static str {
        "yield_in_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
