package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/internal/failure"
)

// Progress is how far a worker has handed its partition's records on to whoever comes after it. Kafka keeps it with the committed offset, as
// its metadata: who reads it knows it to be of the partition's owner. What is handed on and what may be committed are two things: a worker
// that also keeps its records in a file does not commit them before that has been written.
type Progress struct {
	Next   int64 // first offset not handed on
	Newest int64 // newest event time of the records below Next, Unix milliseconds; 0 when there is none
}

const progressLayout = "millrace/1 next=%d newest=%d"

func (p Progress) metadata() string { return fmt.Sprintf(progressLayout, p.Next, p.Newest) }

// ParseProgress reads the metadata of a committed offset; false when no worker has written it.
func ParseProgress(metadata string) (p Progress, ok bool) {
	_, err := fmt.Sscanf(metadata, progressLayout, &p.Next, &p.Newest)
	return p, err == nil && p.metadata() == metadata
}

// withProgress puts what workers have told into a request that commits their offsets.
func withProgress(told map[topicPartition]string) func(*kmsg.OffsetCommitRequest) error {
	return func(r *kmsg.OffsetCommitRequest) error {
		for t := range r.Topics {
			for p := range r.Topics[t].Partitions {
				at := &r.Topics[t].Partitions[p]
				if metadata := told[topicPartition{r.Topics[t].Topic, at.Partition}]; metadata != "" {
					at.Metadata = &metadata
				}
			}
		}
		return nil
	}
}

// ToldProgress is what the workers of a consumer group have told of a partition; nothing where none has.
func ToldProgress(ctx context.Context, client *kgo.Client, group, topic string, partition int32) (Progress, error) {
	committed, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return Progress{}, nil
	}
	if err != nil {
		return Progress{}, failure.Wrap(failure.Unavailable, group, "reading committed offsets", err)
	}
	c, _ := committed.Lookup(topic, partition)
	p, _ := ParseProgress(c.Metadata)
	return p, nil
}
