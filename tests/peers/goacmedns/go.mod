module acmegate.io/tests/peers/goacmedns

go 1.26.0

require github.com/cpu/goacmedns v0.1.1
