FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -o /millrace ./cmd/millrace

FROM alpine:3.22
RUN adduser -D -u 10001 millrace && mkdir /data && chown millrace /data
COPY --from=build /millrace /usr/local/bin/millrace
USER millrace
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["millrace"]
