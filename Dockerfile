# The container image of Chancery: the program, SoftHSM to try it with, and nothing else to speak of.
#
#   make image
#
# It runs as user 10001 and needs no writable root filesystem: what it writes is in /var/lib/chancery. With a hardware token, put the
# vendor's module on top of this image and name it in the configuration.

FROM golang:1.26-bookworm AS build
# Both are empty unless given; the builder passes on HTTP_PROXY and its like by itself.
ARG GOPROXY
ARG GOFLAGS
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unversioned
# PKCS#11 modules are C libraries, loaded at run time: cgo, and the same C library in both stages.
RUN CGO_ENABLED=1 go build -trimpath -ldflags "-s -w -X main.buildVersion=$VERSION" -o /chancery ./cmd/chancery

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates softhsm2 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 chancery \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin chancery \
    && install -d -m 0700 -o 10001 -g 10001 /var/lib/chancery /var/lib/chancery/token /var/lib/chancery/ceremony /var/lib/chancery/keeper \
    && install -d -m 0750 -o 10001 -g 10001 /run/chancery-keeper \
    && install -d -m 0755 -o 10001 -g 10001 /srv/chancery
COPY deploy/softhsm2.conf /etc/chancery/softhsm2.conf
COPY --from=build /chancery /usr/local/bin/chancery
ENV SOFTHSM2_CONF=/etc/chancery/softhsm2.conf
USER 10001:10001
WORKDIR /var/lib/chancery
# 8443: the API, over TLS. 8080: certificates and CRLs, plain HTTP. Operations stay on the container's own loopback.
EXPOSE 8443 8080
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["chancery", "health", "--url", "http://127.0.0.1:8081/readyz"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["chancery"]
CMD ["serve", "--config", "/etc/chancery/chancery.yaml"]
