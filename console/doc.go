// Package console is the one page that shows the state of every stage: lag and dead letters, the live model with its
// lineage, and the last drift verdicts with baseline and live side by side.
//
// It is a reader only. What it shows it takes from where the stages meet (the consumer groups and topics on Kafka, and the
// registry), so that it shows the same in one process and in many, and a stage that is down shows as a lag that grows.
// Only cmd may import it.
package console
