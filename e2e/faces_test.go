package e2e

import (
	"bytes"
	"context"
	littleendian "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/millrace/millrace/serving/openinference/inferencepb"
)

// served is a serve role with a champion that scores by distance.
type served struct {
	*stand
	*proc
	grpc string
}

func serveByDistance(t *testing.T, args ...string) *served {
	t.Helper()
	s := &served{stand: newStand(t)}
	s.ensureTopics()
	s.promote(time.Date(2001, 5, 20, 0, 0, 0, 0, time.UTC))
	s.proc = s.start(append([]string{"serve", "--grpc", "127.0.0.1:0"}, args...)...)
	eventually(t, time.Minute, func() (bool, string) {
		_, after, found := strings.Cut(s.text(), "gRPC ")
		address, _, whole := strings.Cut(after, "\n")
		s.grpc = address
		return found && whole, s.text()
	})
	return s
}

func (s *served) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, time.Minute, func() (bool, string) {
		status := get(t, s.endpoint+"/readyz", nil)
		return status == http.StatusOK, fmt.Sprint(status)
	})
}

func scoreOf(distance float64) float64 { return 1 / (1 + math.Exp(1-0.001*distance)) }

var asked = []struct {
	flight, origin, destination string
	distance                    int64
}{{"f1", "ATL", "LGA", 800}, {"f2", "ORD", "LGA", 0}, {"f3", "JFK", "LAX", 2475}}

const scheduled = 990_360_000_000

// TestOpenInference speaks the protocol by hand, over HTTP and gRPC.
func TestOpenInference(t *testing.T) {
	s := serveByDistance(t)
	s.awaitReady(t)

	var metadata struct {
		Name     string
		Versions []string
		Inputs   []struct{ Name, Datatype string }
	}
	if status := get(t, s.endpoint+"/v2/models/late", &metadata); status != 200 || metadata.Name != "late" || fmt.Sprint(metadata.Versions) != "[1]" ||
		fmt.Sprint(metadata.Inputs) != "[{flight_id BYTES} {scheduled INT64} {origin BYTES} {destination BYTES} {distance INT64}]" {
		t.Errorf("%d %+v", status, metadata)
	}
	for path, want := range map[string]int{
		"/v2": 200, "/v2/health/live": 200, "/v2/health/ready": 200, "/v2/models/late/ready": 200, "/v2/models/late/versions/1/ready": 200, "/v2/models/late/versions/1": 200,
		"/v2/models/late/versions/2": 404, "/v2/models/late/versions/01": 404, "/v2/models/nobody": 404, "/v2/models/late/infer": 405, "/v2/nothing": 404,
	} {
		if status := get(t, s.endpoint+path, nil); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}

	var flights, origins, destinations []string
	var times, distances []int64
	raw := []byte{}
	for _, a := range asked {
		flights, origins, destinations = append(flights, a.flight), append(origins, a.origin), append(destinations, a.destination)
		times, distances = append(times, scheduled), append(distances, a.distance)
		raw = littleendian.LittleEndian.AppendUint32(raw, uint32(a.distance))
	}
	columns := fmt.Sprintf(`{"name":"flight_id","datatype":"BYTES","shape":[3],"data":%s},{"name":"scheduled","datatype":"INT64","shape":[3,1],"data":[[%d],[%d],[%d]]},
		{"name":"origin","datatype":"BYTES","shape":[3],"data":%s},{"name":"destination","datatype":"BYTES","shape":[3],"data":%s}`,
		text(t, flights), times[0], times[1], times[2], text(t, origins), text(t, destinations))
	for name, c := range map[string]struct {
		distance string
		raw      []byte
	}{
		"JSON":   {`{"name":"distance","datatype":"FP64","shape":[3],"data":` + text(t, distances) + `}`, nil},
		"binary": {`{"name":"distance","datatype":"INT32","shape":[3],"parameters":{"binary_data_size":12}}`, raw},
	} {
		body := `{"id":"q","inputs":[` + columns + `,` + c.distance + `]}`
		answer, status := s.inferOver(t, body, c.raw)
		if status != 200 || answer.ID != "q" || answer.ModelVersion != "1" || len(answer.Outputs) != 5 || answer.Outputs[0].Name != "score" {
			t.Fatalf("%s: %d %+v", name, status, answer)
		}
		for i, a := range asked {
			if got := answer.Outputs[0].Data[i].(float64); math.Abs(got-scoreOf(float64(a.distance))) > 1e-12 {
				t.Errorf("%s: %s has score %v", name, a.flight, got)
			}
		}
	}
	if answer, status := s.inferOver(t, `{"inputs":[{"name":"inputs","datatype":"FP32","shape":[2,1],"data":[500,null]}],"outputs":[{"name":"score"}]}`, nil); status != 200 ||
		fmt.Sprint(answer.Outputs[0].Data) != fmt.Sprint([]any{scoreOf(500), scoreOf(0)}) {
		t.Errorf("%d %+v", status, answer)
	}
	for body, code := range map[string]string{
		`{"inputs":[` + columns + `]}`: "missing_field", `{"inputs":[]}`: "invalid_tensor", `[]`: "wrong_type", `{`: "malformed",
		`{"inputs":[{"name":"distance","datatype":"FP16","shape":[1],"data":[1]}]}`:        "invalid_tensor",
		`{"inputs":[{"name":"distance","datatype":"INT8","shape":[1],"data":[300]}]}`:      "invalid_tensor",
		`{"inputs":[{"name":"distance","datatype":"INT64","shape":[2],"data":[1]}]}`:       "invalid_tensor",
		`{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,2],"data":[1,2]}]}`:      "wrong_type",
		`{"inputs":[{"name":"x","datatype":"FP32","shape":[1073741824,0],"data":[]}]}`:     "invalid_tensor",
		`{"inputs":[{"name":"x","datatype":"FP64","shape":[1000000,1000000],"data":[]}]}`:  "invalid_tensor",
		`{"inputs":[{"name":"distanze","datatype":"INT64","shape":[1],"data":[1]}]}`:       "unknown_field",
		`{"inputs":[{"name":"inputs","datatype":"FP32","shape":[1,1],"data":[1]}],"id":1}`: "wrong_type",
	} {
		answer, status := s.inferOver(t, body, nil)
		if status != 400 || !strings.HasPrefix(answer.Error, code+":") {
			t.Errorf("%s: %d %q, want %s", body, status, answer.Error, code)
		}
	}

	conn, err := grpc.NewClient(s.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	state, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil || state.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v %v", state, err)
	}
	client := inferencepb.NewGRPCInferenceServiceClient(conn)
	shape := []int64{3}
	contents := func(texts []string) *inferencepb.InferTensorContents {
		c := &inferencepb.InferTensorContents{}
		for _, s := range texts {
			c.BytesContents = append(c.BytesContents, []byte(s))
		}
		return c
	}
	request := &inferencepb.ModelInferRequest{ModelName: "late", Id: "q", Inputs: []*inferencepb.ModelInferRequest_InferInputTensor{
		{Name: "flight_id", Datatype: "BYTES", Shape: shape, Contents: contents(flights)},
		{Name: "scheduled", Datatype: "INT64", Shape: shape, Contents: &inferencepb.InferTensorContents{Int64Contents: times}},
		{Name: "origin", Datatype: "BYTES", Shape: shape, Contents: contents(origins)},
		{Name: "destination", Datatype: "BYTES", Shape: shape, Contents: contents(destinations)},
		{Name: "distance", Datatype: "INT64", Shape: shape, Contents: &inferencepb.InferTensorContents{Int64Contents: distances}},
	}}
	answer, err := client.ModelInfer(ctx, request)
	must(t, err)
	if answer.GetId() != "q" || answer.GetModelVersion() != "1" || len(answer.GetOutputs()) != 5 || len(answer.GetRawOutputContents()) != 0 {
		t.Fatalf("%v", answer)
	}
	for i, a := range asked {
		if got := answer.GetOutputs()[0].GetContents().GetFp64Contents()[i]; math.Abs(got-scoreOf(float64(a.distance))) > 1e-12 {
			t.Errorf("gRPC: %s has score %v", a.flight, got)
		}
	}
	request.ModelName = "nobody"
	if _, err := client.ModelInfer(ctx, request); status.Code(err) != codes.NotFound {
		t.Errorf("no such model: %v", err)
	}
	request.ModelName, request.Inputs = "late", request.GetInputs()[:2]
	if _, err := client.ModelInfer(ctx, request); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "missing_field") {
		t.Errorf("missing columns: %v", err)
	}
	s.stop()
}

// tool is the program that an environment variable names, as .ci/run does; without it the test is skipped: it needs more than Go.
func tool(t *testing.T, variable, without string) string {
	t.Helper()
	program := os.Getenv(variable)
	if program == "" {
		t.Skipf("%s names %s", variable, without)
	}
	return program
}

// TestTritonClient asks with tritonclient of PyPI; MILLRACE_TEST_TRITON_PYTHON is a Python that has it.
func TestTritonClient(t *testing.T) {
	python := tool(t, "MILLRACE_TEST_TRITON_PYTHON", "no Python with tritonclient[http,grpc]")
	s := serveByDistance(t)
	s.awaitReady(t)
	type row struct {
		Columns map[string]any `json:"columns"`
		Score   float64        `json:"score"`
	}
	var rows []row
	for _, a := range asked {
		rows = append(rows, row{map[string]any{"flight_id": a.flight, "scheduled": scheduled, "origin": a.origin, "destination": a.destination, "distance": a.distance}, scoreOf(float64(a.distance))})
	}
	cmd := exec.Command(python, "python/open_inference.py", strings.TrimPrefix(s.endpoint, "http://"), s.grpc, "late")
	cmd.Stdin = strings.NewReader(text(t, rows))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	s.stop()
}

type inferAnswer struct {
	ID           string
	ModelVersion string `json:"model_version"`
	Outputs      []struct {
		Name string
		Data []any
	}
	Error string
}

func (s *served) inferOver(t *testing.T, body string, raw []byte) (inferAnswer, int) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, s.endpoint+"/v2/models/late/infer", bytes.NewReader(append([]byte(body), raw...)))
	must(t, err)
	if raw != nil {
		r.Header.Set("Inference-Header-Content-Length", fmt.Sprint(len(body)))
	}
	resp, err := http.DefaultClient.Do(r)
	must(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	var answer inferAnswer
	if err := json.Unmarshal(b, &answer); err != nil {
		t.Fatalf("%d %s: %v", resp.StatusCode, b, err)
	}
	return answer, resp.StatusCode
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}
