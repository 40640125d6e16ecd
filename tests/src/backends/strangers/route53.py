import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, zone = sys.argv[5:]
keys = {"aws_access_key_id": "AKIAOFTHESTRANGER000", "aws_secret_access_key": "its secret"}
retries = Config(retries={"mode": "standard", "total_max_attempts": 20})
route53 = boto3.client("route53", endpoint_url=endpoint, region_name="us-east-1", config=retries, **keys)


def change(name, edit):
    """Exactly what stands is exchanged for what shall stand; if somebody was faster, again."""
    name += "."
    while True:
        page = route53.list_resource_record_sets(HostedZoneId=zone, StartRecordName=name, StartRecordType="TXT", MaxItems="1")
        old = [s for s in page["ResourceRecordSets"] if (s["Name"], s["Type"]) == (name, "TXT")]
        values = edit([record["Value"] for s in old for record in s["ResourceRecords"]])
        new = {"Name": name, "Type": "TXT", "TTL": old[0]["TTL"] if old else 300, "ResourceRecords": [{"Value": value} for value in values]}
        changes = [{"Action": "DELETE", "ResourceRecordSet": s} for s in old]
        if values:
            changes.append({"Action": "CREATE", "ResourceRecordSet": new})
        try:
            return route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": changes})
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidChangeBatch":
                raise


def add(name, value):
    change(name, lambda values: values + [quoted(value)])


def remove(name, value):
    change(name, lambda values: [other for other in values if other != quoted(value)])


run(add, remove)
