package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// arrivalsFrame is a push as Feast's documentation and clients write it: columns of values, times without a zone.
const arrivalsFrame = `{"push_source_name":"arrivals","to":"online_and_offline","allow_registry_cache":true,"transform_on_write":true,"df":{
	"flight_id":["a1","a2","a3"],
	"arrived":["2001-05-20T10:00:00","2001-05-20 10:10:00",990354000000],
	"origin":["ATL","ATL","ORD"],"destination":["LGA","JFK","LGA"],"delay":[10,30,-5]}}`

// pushArrivals pushes three arrivals and waits until their features can be read.
func (s *served) pushArrivals(t *testing.T) {
	t.Helper()
	if code, body := s.post(t, "/push", arrivalsFrame); code != 200 {
		t.Fatalf("push: %d %s", code, body)
	}
	s.awaitApplied()
}

func (s *served) post(t *testing.T, path, body string) (int, []byte) {
	t.Helper()
	resp, err := http.Post(s.endpoint+path, "application/json", bytes.NewReader([]byte(body)))
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, b
}

// TestFeast pushes events over Feast's API and reads the features that the stream role makes of them over it.
func TestFeast(t *testing.T) {
	s := serveByDistance(t)
	s.start("stream")
	s.awaitReady(t)
	s.pushArrivals(t)

	// The records are what any other producer's would be: Avro, keyed, in the key's partition.
	arrivals := s.project.Source("arrivals")
	decoder, err := schemas.NewDecoder(arrivals.Schema, schemas.Avro, nil)
	must(t, err)
	seen := map[string]string{}
	_, err = streams.Read(t.Context(), s.brokers(), streams.ReadOptions{Topic: arrivals.Topic}, func(r *kgo.Record) error {
		row, err := decoder.Decode(t.Context(), r.Value, nil)
		if want := online.Partition(online.Murmur2, string(r.Key), arrivals.Partitions); want != r.Partition {
			t.Errorf("%s is in partition %d, not %d", r.Key, r.Partition, want)
		}
		seen[string(r.Key)] = fmt.Sprint(row[0].Text(), " ", row[1].Text())
		return err
	})
	must(t, err)
	if want := map[string]string{"a1": "a1 2001-05-20T10:00:00Z", "a2": "a2 2001-05-20T10:10:00Z", "a3": "a3 2001-05-20T10:20:00Z"}; !reflect.DeepEqual(seen, want) {
		t.Errorf("on the topic: %v", seen)
	}

	// As feast.infra.online_stores.remote.RemoteOnlineStore (0.67) asks.
	code, body := s.post(t, "/get-online-features", `{"features":["origin_delays:flights_24h","origin_delays:delay_mean_24h","origin_delays:delay_std_24h"],
		"entities":{"origin":["ATL","ORD","nowhere",null]},"full_feature_names":false,"include_feature_view_version_metadata":false}`)
	type answer struct {
		Metadata struct {
			FeatureNames []string `json:"feature_names"`
		}
		Results []struct {
			Values          []any
			Statuses        []string
			EventTimestamps []string `json:"event_timestamps"`
		}
	}
	var got answer
	must(t, json.Unmarshal(body, &got))
	const none = "1970-01-01T00:00:00Z"
	times := []string{"2001-05-20T10:10:00.000Z", "2001-05-20T10:20:00.000Z", none, none}
	var want answer
	must(t, json.Unmarshal([]byte(text(t, map[string]any{
		"metadata": map[string]any{"feature_names": []string{"origin", "flights_24h", "delay_mean_24h", "delay_std_24h"}},
		"results": []any{
			map[string]any{"values": []any{"ATL", "ORD", "nowhere", nil}, "statuses": []string{"PRESENT", "PRESENT", "PRESENT", "PRESENT"}, "event_timestamps": []string{none, none, none, none}},
			map[string]any{"values": []any{2, 1, nil, nil}, "statuses": []string{"PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"}, "event_timestamps": times},
			map[string]any{"values": []any{20, -5, nil, nil}, "statuses": []string{"PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"}, "event_timestamps": times},
			map[string]any{"values": []any{10, 0, nil, nil}, "statuses": []string{"PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"}, "event_timestamps": times},
		},
	})), &want))
	if code != 200 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d\ngot  %s\nwant %+v", code, body, want)
	}
	code, body = s.post(t, "/get-online-features", `{"feature_service":"late","entities":{"origin":["ATL"],"destination":["LGA"]},"full_feature_names":true}`)
	got = answer{}
	must(t, json.Unmarshal(body, &got))
	if code != 200 || len(got.Metadata.FeatureNames) != 2+2*26 || got.Metadata.FeatureNames[2] != "origin_delays__flights_1h" {
		t.Errorf("%d %v", code, got.Metadata.FeatureNames)
	}
	for body, want := range map[string]string{
		`{"features":["origin_delays:speed"],"entities":{"origin":["ATL"]}}`:                                                             "unknown_field",
		`{"features":["airports:speed"],"entities":{"origin":["ATL"]}}`:                                                                  "not_found",
		`{"features":["flights_24h"],"entities":{"origin":["ATL"]}}`:                                                                     "wrong_type",
		`{"features":["origin_delays:flights_24h"],"entities":{"airport":["ATL"]}}`:                                                      "missing_field",
		`{"features":["origin_delays:flights_24h"],"entities":{"origin":["ATL"],"tail":[1]}}`:                                            "unknown_field",
		`{"features":["origin_delays:flights_24h","destination_delays:flights_24h"],"entities":{"origin":["A"],"destination":["A"]}}`:    "malformed",
		`{"features":["origin_delays:flights_24h","destination_delays:flights_1h"],"entities":{"origin":["A"],"destination":["A","B"]}}`: "malformed",
		`{"feature_service":"early","entities":{"origin":["ATL"]}}`:                                                                      "not_found",
		`{"features":["origin_delays:flights_24h"],"entities":{"origin":[]}}`:                                                            "no_rows",
	} {
		s.refusedAs(t, "/get-online-features", body, want)
	}
	for body, want := range map[string]string{
		`{"push_source_name":"nothing","df":{}}`:                                                                                                 "not_found",
		`{"push_source_name":"arrivals","df":{}}`:                                                                                                "no_rows",
		`{"push_source_name":"arrivals","df":{"flight_id":["a"]},"to":"moon"}`:                                                                   "wrong_type",
		`{"push_source_name":"arrivals","df":{"flight_id":["a"]}}`:                                                                               "missing_field",
		`{"push_source_name":"arrivals","df":{"flight_id":["a"],"arrived":[1,2],"origin":["A"],"destination":["B"],"delay":[1]}}`:                "malformed",
		`{"push_source_name":"arrivals","df":{"flight_id":["a"],"arrived":[1],"origin":["A"],"destination":["B"],"delay":[1],"created":[null]}}`: "unknown_field",
		`{"push_source_name":"arrivals","df":{"flight_id":["a"],"arrived":["then"],"origin":["A"],"destination":["B"],"delay":[1]}}`:             "wrong_type",
	} {
		s.refusedAs(t, "/push", body, want)
	}
	s.stop()
}

func (s *served) refusedAs(t *testing.T, path, body, code string) {
	t.Helper()
	status, answer := s.post(t, path, body)
	var p struct{ Code, Detail string }
	if err := json.Unmarshal(answer, &p); err != nil || p.Code != code || status < 400 || status >= 500 {
		t.Errorf("%s: %d %s, want %s", body, status, answer, code)
	}
}

// TestFeastClient reads features with Feast's own remote online store; MILLRACE_TEST_FEAST_PYTHON is a Python that has it.
func TestFeastClient(t *testing.T) {
	python := tool(t, "MILLRACE_TEST_FEAST_PYTHON", "no Python with feast")
	s := serveByDistance(t)
	s.start("stream")
	s.awaitReady(t)
	s.pushArrivals(t)
	cmd := exec.Command(python, "python/feast_remote.py", s.endpoint, t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.stop()
}

// TestSchemathesis holds the server to its own OpenAPI document; MILLRACE_TEST_SCHEMATHESIS is the program.
func TestSchemathesis(t *testing.T) {
	program := tool(t, "MILLRACE_TEST_SCHEMATHESIS", "no schemathesis")
	s := serveByDistance(t)
	s.awaitReady(t)
	config, err := filepath.Abs("python/schemathesis.toml")
	must(t, err)
	cmd := exec.Command(program, "--config-file", config, "run", s.endpoint+"/openapi.json", "--max-examples", "25", "--seed", "7", "--no-color")
	cmd.Dir, cmd.WaitDelay = t.TempDir(), time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.stop()
}
