// Package batches is the stage that scores the batches which the project declares, at the times of their schedules.
//
// A run of an instant is what millrace score does (serving.Batch), with the version, the files and the folder that were chosen when it began: its
// record, a file in the data folder, is written before the first row is read. A run that was cut short goes on from its record, by whichever
// replica is there; an instant whose record is concluded is never run again. One replica at a time has a batch, by a lock in the shared data
// folder. It needs neither Kafka nor Redis.
//
// It may be imported by cmd alone.
package batches
