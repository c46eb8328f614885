package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

const flightsProject = "../../examples/flights"

// millrace runs the program with arguments and gives what it printed and its status.
func millrace(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(context.Background(), args, &out, &errs)
	return out.String(), errs.String(), status
}

// landed puts arrivals from an airport into a Redis of the test's own: one every ten minutes, the newest at noon.
func landed(t *testing.T, origin string, n int) (addr string, newest time.Time) {
	t.Helper()
	server, err := online.StartEmbedded("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	p, err := project.Load(flightsProject)
	if err != nil {
		t.Fatal(err)
	}
	g := p.Group("origin_delays")
	newest = time.Date(2001, 5, 20, 12, 0, 0, 0, time.UTC)
	e := g.NewEntity()
	for i := range n {
		at := newest.Add(-time.Duration(n-1-i) * 10 * time.Minute).UnixMilli()
		row := make(schemas.Row, len(g.Source.Schema.Columns))
		row[g.Source.Schema.Index("origin")] = schemas.StringValue(origin)
		row[g.Source.Schema.Index("delay")] = schemas.IntValue(int64(i))
		if _, err := g.Add(e, row, at, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	version := online.Version{ID: g.Version, Definition: g.Version, Topic: g.KeyedTopic, Partitions: 8, Partitioner: online.Murmur2}
	if err := online.NewVersions(client, p.Name).Declare(t.Context(), g.Name, version); err != nil {
		t.Fatal(err)
	}
	writer := online.NewWriter(client, p.Name, g.Name, g.Version)
	if _, err := writer.Write(t.Context(), online.Partition(online.Murmur2, "LGA", 8), online.Batch{}); err != nil { // begun with, no events
		t.Fatal(err)
	}
	position := online.Position{Next: 500, Newest: newest.UnixMilli(), Sources: map[online.SourcePartition]int64{{Source: "arrivals", Partition: 2}: 41}}
	_, err = writer.Commit(t.Context(), online.Partition(online.Murmur2, origin, 8), nil, position, []string{origin}, [][]byte{e.AppendBinary(nil)}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return server.Addr(), newest
}

func TestInspect(t *testing.T) {
	addr, newest := landed(t, "ORD", 30)
	data := t.TempDir()
	inspect := func(args ...string) (string, string, int) {
		return millrace(t, append([]string{"inspect", "--project", flightsProject, "--redis", addr, "--data-dir", data}, args...)...)
	}
	out, errs, status := inspect("origin_delays", "ORD", "--json")
	var v inspection
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	// Under clock: event now is just after the newest event: the last hour has those of 11:10 to 12:00 and, begun up to a minute early, 11:00.
	at := newest.Add(time.Millisecond)
	if v.At != at.Format("2006-01-02T15:04:05.999Z07:00") || *v.Newest != "2001-05-20T12:00:00Z" || v.Redis.Bytes == 0 || v.Redis.TTL == nil || len(v.Tiles) == 0 {
		t.Errorf("%+v", v)
	}
	if v.Position.Next != 500 || v.Position.Partition != online.Partition(online.Murmur2, "ORD", 8) || v.Position.Sources["arrivals"][2] != 41 {
		t.Errorf("position %+v", v.Position)
	}
	outputs := map[string]outputView{}
	for _, o := range v.Outputs {
		outputs[o.Name] = o
	}
	if o := outputs["flights_1h"]; o.Value != 7.0 || *o.From != "2001-05-20T11:00:00Z" || o.To != v.At || o.TailError != "1m" || o.Tiles != 7 {
		t.Errorf("%+v", o)
	}
	if o := outputs["last_delay"]; o.Value != 29.0 || o.From != nil || o.Window != "lifetime" {
		t.Errorf("%+v", o)
	}
	// Ten days later windows are empty, and the text says so.
	out, _, status = inspect("origin_delays", "ORD", "--at", "2001-05-30T12:00:00Z", "--tiles")
	for _, part := range []string{"partition ", "of arrivals up to 2/41", "expires in 1h", "delay_mean_7d", "null", "2001-05-23T10:00:00Z", "TILE"} {
		if !strings.Contains(out, part) || status != 0 {
			t.Errorf("status %d, no %q in\n%s", status, part, out)
		}
	}
	for _, c := range []struct {
		args []string
		kind failure.Kind
		says string
	}{
		{[]string{"origin_delay", "ORD"}, failure.NotFound, "did you mean origin_delays?"},
		{[]string{"planes", "ORD"}, failure.NotFound, "the project has origin_delays, destination_delays"},
		{[]string{"origin_delays", "ORD", "LGA"}, failure.BadRequest, "2 values name the entity, which has 1: origin"},
		{[]string{"origin_delays", "LGA"}, failure.NotFound, "nothing is known of LGA"},
		{[]string{"destination_delays", "ORD"}, failure.NotFound, "Redis has nothing of version"},
	} {
		if _, errs, status := inspect(c.args...); status != c.kind.ExitCode() || !strings.Contains(errs, c.says) {
			t.Errorf("%v: status %d, %s", c.args, status, errs)
		}
	}
}

func TestExplain(t *testing.T) {
	data := t.TempDir()
	explain := func(feature string, args ...string) (string, string, int) {
		return millrace(t, append([]string{"explain", feature, "--project", flightsProject, "--data-dir", data}, args...)...)
	}
	out, errs, status := explain("origin_delays.delay_mean", "--json")
	var e explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || status != 0 {
		t.Fatalf("status %d, %v: %s%s", status, err, out, errs)
	}
	if e.Expression != "mean(delay)" || e.Source.Topic != "arrivals" || e.Source.Keyed != "origin_delays.keyed" || e.Source.Direct || e.Source.Lateness != "2h" || e.Line == 0 {
		t.Errorf("%+v", e)
	}
	if len(e.Outputs) != 4 || e.Outputs[0] != (outputKind{"delay_mean_1h", "1h", "1m", "float"}) {
		t.Errorf("%+v", e.Outputs)
	}
	if len(e.Models) != 1 || e.Models[0].Model != "late" || len(e.Models[0].Inputs) != 4 || e.Models[0].Champion != nil {
		t.Errorf("%+v", e.Models)
	}
	if want := "mr:{flights.origin_delays@" + e.Version + "/<partition>}:e:<entity>"; e.Online.State != want || !strings.HasPrefix(e.Offline.Features, data) {
		t.Errorf("%+v %+v", e.Online, e.Offline)
	}
	out, _, status = explain("origin_delays.delay_mean_24h")
	if status != 0 || !strings.Contains(out, "delay_mean_24h  24h") || strings.Contains(out, "delay_mean_1h ") {
		t.Errorf("status %d:\n%s", status, out)
	}
	for feature, says := range map[string]string{
		"origin_delays.delay_men": "did you mean delay_mean?", "origin_delay.delay_mean": "did you mean origin_delays?", "delay_mean": "write it as GROUP.FEATURE",
	} {
		if _, errs, status := explain(feature); status == 0 || !strings.Contains(errs, says) {
			t.Errorf("%s: status %d, %s", feature, status, errs)
		}
	}
}
