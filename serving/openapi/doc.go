// Package openapi describes the HTTP faces of the serving stage: an OpenAPI 3.1 document made from the project's schemas and models, at
// /openapi.json, and a page of it for people, at /docs, that loads nothing from elsewhere.
//
// What a row of a model may hold comes from the Avro schema of the model's source: types, null, ranges, enums, and which columns have a
// default and may be left out. Whoever has a token for certain models sees those alone.
//
// Source: https://spec.openapis.org/oas/v3.1.0. Only cmd imports it.
package openapi
