package model

import (
	"bytes"
	"encoding/json"

	"github.com/millrace/millrace/internal/failure"
)

// Detect tells the media type of an encoded model from its first bytes, for Load: file names are not asked. What is
// known but not read here is named in the error, which is of kind Refused.
func Detect(b []byte) (mediaType string, err error) {
	text := bytes.TrimLeft(b, " \t\r\n")
	switch {
	case bytes.HasPrefix(text, []byte("tree\n")), bytes.HasPrefix(text, []byte("tree\r\n")):
		return MediaLightGBM, nil
	case len(text) > 1 && text[0] == '{' && bytes.IndexByte([]byte("LlIiU#$"), text[1]) >= 0:
		return MediaXGBoostUBJ, nil
	case len(text) > 1 && text[0] == '{':
		return detectJSON(text)
	case bytes.HasPrefix(b, []byte("\x08")): // ir_version, the first field of a ModelProto
		return MediaONNX, nil
	}
	for _, other := range []struct{ prefix, name string }{
		{"binf", "XGBoost's old binary format"}, {"CONFIG-offset:", "a serialized XGBoost booster"}, {"\x80", "a Python pickle"},
		{"PK\x03\x04", "a zip archive"}, {"\x1f\x8b", "a gzip archive"}, {"booster[0]", "a dump of XGBoost's"},
	} {
		if bytes.HasPrefix(b, []byte(other.prefix)) {
			return "", failure.New(failure.Refused, "model", "it looks like %s, which is not read", other.name).WithHint(detectHint)
		}
	}
	return "", failure.New(failure.Refused, "model", "its first bytes %q are those of no known format", clip(string(b[:min(len(b), 16)]))).
		WithHint(detectHint)
}

const detectHint = "save the model with save_model: XGBoost as .json or .ubj, LightGBM as text; or as ONNX"

// detectJSON looks at the first field.
func detectJSON(text []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	var first [3]json.Token
	for i := range first {
		first[i], _ = d.Token() // what is not there is nil
	}
	switch {
	case first[1] == "learner" || first[1] == "version":
		return MediaXGBoostJSON, nil
	case first[1] == "format" && first[2] == logisticFormat:
		return MediaLogistic, nil
	case first[1] == "format" && first[2] == multinomialFormat:
		return MediaMultinomial, nil
	case first[1] == "format" && (first[2] == bundleFormat || first[2] == bundleFormat2 || first[2] == bundleFormat3):
		return MediaBundle, nil
	case first[1] == "name" || first[1] == "tree_info":
		return "", failure.New(failure.Refused, "model", "it looks like LightGBM's dump_model, which is not read").WithHint(detectHint)
	default:
		return "", failure.New(failure.Refused, "model", "JSON whose first field is %v is no known format", first[1]).WithHint(detectHint)
	}
}
