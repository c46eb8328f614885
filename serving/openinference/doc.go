// Package openinference is the Open Inference Protocol v2 on the serving stage, over REST and over gRPC, so that the clients people have
// (tritonclient, KServe's, MLServer's) can ask it for scores.
//
// A request gives its rows in one of two forms. Either there is one tensor for each column of the model's source, by the column's name,
// of shape [n] or [n, 1]: these become rows that are read and checked as those of POST /v1/models/{model}:score are, and the features are
// fetched by their entity keys. Or there is the single tensor "inputs" of shape [n, k]: the k inputs of the model in the order of the
// metadata's parameter "inputs_order"; no feature is read. A value that is missing is left out (its tensor), null (JSON) or NaN.
//
// An answer has, for each row: "score" (FP64; missing where the row was refused), "rung" and "reason" of the fallback ladder, "version" of
// the model and "prediction_id", under which the prediction is logged; of a model with several classes also "class", that of highest score,
// "class_scores" of shape [n, classes], and "classes", their names beside them.
//
// It refuses tensors that are not a column, shapes that do not fit each other or their data, datatypes that it does not know (FP16, BF16),
// a version that is not the one that answers, and everything that the stage refuses; over REST with {"error": …} and the status, over
// gRPC with a status of the corresponding code. The text begins with the stage's stable code.
//
// Sources: https://github.com/kserve/open-inference-protocol; for raw tensors in REST bodies, the binary tensor data extension
// (https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md). Only cmd imports it.
package openinference
