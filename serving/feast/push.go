package feast

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/streams"
)

// Limits of a push.
const (
	maxPush     = 10_000 // rows
	pushTimeout = 10 * time.Second
)

// pushRequest is the body of POST /push. Members of Feast's own that say nothing here are passed over.
type pushRequest struct {
	PushSourceName string                       `json:"push_source_name"`
	DF             map[string][]json.RawMessage `json:"df"` // the rows' values by column
	To             string                       `json:"to"`
}

// Pusher produces rows to the sources' topics.
type Pusher struct {
	client  *kgo.Client
	sources map[string]*target
}

// target is a source that can be pushed to.
type target struct {
	source  *project.Source
	key     int
	decoder schemas.Decoder
	encoder schemas.Encoder
}

// NewPusher makes a producer for the project's sources that have a topic. Kafka is not asked before the first push.
func NewPusher(p *project.Project, kafka streams.Config) (*Pusher, error) {
	registry, err := streams.NewRegistry(kafka)
	if err != nil {
		return nil, err
	}
	pusher := &Pusher{sources: map[string]*target{}}
	for _, s := range p.Sources {
		if s.Merged() || s.Chained() {
			continue
		}
		t := &target{source: s, key: s.Schema.Index(s.Key)}
		record := s.Schema.Record()
		if t.decoder, err = schemas.NewDecoder(record, schemas.JSON, nil); err != nil {
			return nil, fmt.Errorf("making a decoder of %s: %w", s.Name, err)
		}
		if t.encoder, err = schemas.NewEncoder(record, s.Format, registry, s.Topic+"-value"); err != nil {
			return nil, fmt.Errorf("making an encoder of %s: %w", s.Name, err)
		}
		pusher.sources[s.Name] = t
	}
	pusher.client, err = streams.NewClient(kafka, kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
		by := online.Murmur2
		for _, t := range pusher.sources {
			if t.source.Topic == topic && t.source.Partitioner == project.PartitionerCRC32 {
				by = online.CRC32
			}
		}
		return func(r *kgo.Record, n int) int { return int(online.Partition(by, string(r.Key), int32(n))) }
	})))
	return pusher, err
}

// Sources is the names of the sources that can be pushed to.
func (p *Pusher) Sources() []string { return slices.Sorted(maps.Keys(p.sources)) }

// Close ends the producer.
func (p *Pusher) Close() { p.client.Close() }

func answerPush(w http.ResponseWriter, r *http.Request, s Stage, pusher *Pusher) {
	var asked pushRequest
	if p := read(w, r, s, &asked); p != nil {
		p.Write(w)
		return
	}
	if p := pusher.push(r.Context(), s, &asked); p != nil {
		p.Write(w)
		return
	}
	write(w, map[string]string{"status": "ok"})
}

func (p *Pusher) push(ctx context.Context, s Stage, q *pushRequest) *serving.Problem {
	if fault := s.MayPush(ctx, q.PushSourceName); fault != nil {
		return fault
	}
	t, ok := p.sources[q.PushSourceName]
	if !ok {
		return &serving.Problem{Status: http.StatusNotFound, Code: "not_found", Field: "push_source_name", Detail: "the project has no such source with a topic of its own"}
	}
	switch q.To {
	case "", "online", "offline", "online_and_offline":
	default:
		return badRequest("wrong_type", "to", "is none of online, offline and online_and_offline")
	}
	records, fault := t.records(ctx, q.DF)
	if fault != nil {
		return fault
	}
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	if err := p.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return &serving.Problem{
			Status: http.StatusServiceUnavailable, Code: "unavailable", Detail: "Kafka did not acknowledge the rows, some of which may have been written",
			Hint: "push them again",
		}
	}
	return nil
}

// records is the rows of a data frame as records of the source's topic.
func (t *target) records(ctx context.Context, df map[string][]json.RawMessage) ([]*kgo.Record, *serving.Problem) {
	columns := slices.Sorted(maps.Keys(df))
	n := 0
	for i, c := range columns {
		if i > 0 && len(df[c]) != n {
			return nil, badRequest("malformed", "df."+c, "%d values, where %s has %d", len(df[c]), columns[0], n)
		}
		n = len(df[c])
	}
	switch {
	case n == 0:
		return nil, badRequest("no_rows", "df", "there is no row")
	case n > maxPush:
		p := badRequest("too_many_rows", "df", "%d rows, at most %d", n, maxPush)
		p.Status = http.StatusRequestEntityTooLarge
		return nil, p
	}
	records := make([]*kgo.Record, n)
	for i := range records {
		row, err := t.decoder.Decode(ctx, t.rowJSON(columns, df, i), nil)
		var fault *schemas.RecordError
		switch {
		case errors.As(err, &fault):
			p := serving.FaultOf(t.source.Schema, "", fault)
			p.Field = "df." + p.Field + "[" + strconv.Itoa(i) + "]"
			return nil, p
		case err != nil:
			return nil, badRequest("malformed", "df", "row %d cannot be read", i)
		}
		value, err := t.encoder.Encode(ctx, row)
		if err != nil {
			kind := failure.Of(err)
			return nil, &serving.Problem{Status: kind.Status(), Code: kind.String(), Detail: "the rows cannot be encoded as the source's format has it"}
		}
		records[i] = &kgo.Record{Topic: t.source.Topic, Key: []byte(row[t.key].Text()), Value: value}
	}
	return records, nil
}

// rowJSON is a row as the JSON decoder of the schema takes it: columns of nested records by their path.
func (t *target) rowJSON(columns []string, df map[string][]json.RawMessage, row int) []byte {
	tree := map[string]any{}
	for _, c := range columns {
		at, path := tree, strings.Split(c, ".")
		for _, p := range path[:len(path)-1] {
			below, ok := at[p].(map[string]any)
			if !ok {
				below = map[string]any{}
				at[p] = below
			}
			at = below
		}
		v := df[c][row]
		if k, ok := t.source.Schema.Column(c); ok && k.Kind == schemas.Time {
			v = inUTC(v)
		}
		at[path[len(path)-1]] = v
	}
	b, err := json.Marshal(tree)
	if err != nil { // of valid JSON it cannot fail
		return nil
	}
	return b
}

// inUTC gives a time without a zone the one that Feast takes it to be in.
func inUTC(v json.RawMessage) json.RawMessage {
	text := string(bytes.Trim(v, `"`))
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return json.RawMessage(strconv.Quote(t.Format(time.RFC3339Nano)))
		}
	}
	return v
}
