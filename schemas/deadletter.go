package schemas

import (
	"errors"
	"strconv"

	"github.com/millrace/millrace/internal/failure"
)

// The header names of a dead letter.
const (
	HeaderTopic     = "millrace-topic"
	HeaderPartition = "millrace-partition"
	HeaderOffset    = "millrace-offset"
	HeaderTimestamp = "millrace-timestamp"
	HeaderClass     = "millrace-class"
	HeaderReason    = "millrace-reason"
	HeaderStage     = "millrace-stage"
)

// The classes of dead letters that could be decoded (those that could not have a RecordError's).
const (
	ClassFuture = "future" // too far ahead of the clock
	ClassLate   = "late"   // older than everything its group keeps
	ClassEntity = "entity" // no usable entity key, or a value that an aggregate cannot take
)

// ClassOf is the class of a record that failed so when it was decoded or added to its entity.
func ClassOf(err error) string {
	var r *RecordError
	if errors.As(err, &r) {
		return r.Class
	}
	return ClassEntity
}

// Header is a Kafka record header; kgo.RecordHeader(h) converts it as it is.
type Header struct {
	Key   string
	Value []byte
}

// DeadLetter is a record that could not be applied. The record on the dead-letter topic has the original key and value; all else is
// in its headers.
type DeadLetter struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Timestamp int64  `json:"timestamp"` // the original record's, Unix milliseconds
	Class     string `json:"class"`     // of RecordError, one of those above, or the stage's own
	Reason    string `json:"reason"`
	Stage     string `json:"stage"`
	Key       []byte `json:"key"`
	Value     []byte `json:"value"`
}

// Headers is everything but key and value.
func (d DeadLetter) Headers() []Header {
	integer := func(i int64) []byte { return strconv.AppendInt(nil, i, 10) }
	return []Header{
		{HeaderTopic, []byte(d.Topic)},
		{HeaderPartition, integer(int64(d.Partition))},
		{HeaderOffset, integer(d.Offset)},
		{HeaderTimestamp, integer(d.Timestamp)},
		{HeaderClass, []byte(d.Class)},
		{HeaderReason, []byte(d.Reason)},
		{HeaderStage, []byte(d.Stage)},
	}
}

// ParseDeadLetter reads a record of the dead-letter topic. Foreign headers are ignored; a missing or malformed one of ours is an
// error of kind BadRecord. Key and value are kept, not copied.
func ParseDeadLetter(key, value []byte, headers []Header) (DeadLetter, error) {
	d := DeadLetter{Key: key, Value: value}
	texts := map[string]*string{HeaderTopic: &d.Topic, HeaderClass: &d.Class, HeaderReason: &d.Reason, HeaderStage: &d.Stage}
	var partition int64
	numbers := map[string]*int64{HeaderPartition: &partition, HeaderOffset: &d.Offset, HeaderTimestamp: &d.Timestamp}
	for _, h := range headers {
		if text, ok := texts[h.Key]; ok {
			*text = string(h.Value)
			delete(texts, h.Key)
		}
		if number, ok := numbers[h.Key]; ok {
			n, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil || (h.Key == HeaderPartition && int64(int32(n)) != n) {
				return DeadLetter{}, failure.New(failure.BadRecord, h.Key, "header %q is not a number", h.Value)
			}
			*number = n
			delete(numbers, h.Key)
		}
	}
	for name := range texts {
		return DeadLetter{}, failure.New(failure.BadRecord, name, "a dead letter lacks this header")
	}
	for name := range numbers {
		return DeadLetter{}, failure.New(failure.BadRecord, name, "a dead letter lacks this header")
	}
	d.Partition = int32(partition)
	return d, nil
}
